"""Check lists and videos: decode every video, and note what is wrong or odd about a list."""
