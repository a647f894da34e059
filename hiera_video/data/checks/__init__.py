"""Check lists and videos: decode every video, and report what is wrong or unusual in a list."""
