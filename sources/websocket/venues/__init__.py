"""What a recorder must know of each venue: declarations, no socket, no clock, no chance."""
