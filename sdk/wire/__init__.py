"""What servers and clients share of protocols: messages of gRPC, tensors of TensorFlow, tokens."""
