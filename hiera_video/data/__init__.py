"""Read videos: data set lists, decoders, frame sampling, transforms and the data loader."""
