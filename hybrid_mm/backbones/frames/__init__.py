"""Frames that several networks share."""
