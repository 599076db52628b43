"""Tables, figures and claims, made from artifacts."""
