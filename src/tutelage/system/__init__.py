"""What this computer gives every room: files that are whole or not there."""
