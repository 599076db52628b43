"""Blind spots of neural networks: minimum-distortion adversarial examples and what they say about the networks.

The science of Szegedy et al., *Intriguing properties of neural networks* (2013), as functions on arrays and tensors.
Nothing here knows of the workflow engine or of its configuration's place on disk.
"""
