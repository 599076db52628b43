"""Tables, figures and claims out of artifacts."""
