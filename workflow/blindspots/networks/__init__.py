"""Networks as torch modules, with their forward and backward passes, loss and outputs."""
