"""Small networks that come with Impasto: faces, people, straight lines ([kit.md](../../../../docs/kit.md))."""
