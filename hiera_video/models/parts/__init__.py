"""Parts of models: what families of models are built from."""
