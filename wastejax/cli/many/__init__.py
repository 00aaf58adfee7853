"""Commands for more images than one answer or one folder should hold."""
