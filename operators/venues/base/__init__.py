"""What several venues share: listings, and which channel keeps a book."""
