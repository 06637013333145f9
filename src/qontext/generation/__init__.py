"""Generating text: pages of caches, the loop, and (later) sampling, beams and schedules."""
