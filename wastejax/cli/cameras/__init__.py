"""Commands about images of other cameras."""
