"""Export weights as state dicts, torch.export programs, ONNX, or folders with a model card."""
