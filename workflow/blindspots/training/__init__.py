"""Training of networks, until convergence or on minibatches."""
