"""What the loss looks like around the weights of a network: sharpness, Hessian, surface."""
