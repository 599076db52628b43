"""The workflow's programs, one for each kind of step: arguments in, one whole artifact out."""
