"""What goes over the wire of protocols that servers and clients share: messages of gRPC, TensorFlow's tensors."""
