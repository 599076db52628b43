"""Networks as torch modules, their forward and backward passes, and what they answer."""
