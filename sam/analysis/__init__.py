"""The shape of the loss around the weights of a network: sharpness, Hessian, surface."""
