"""Write weights for use elsewhere: state dicts, torch.export, ONNX, folders with a model card."""
