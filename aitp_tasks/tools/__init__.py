"""What stands beside the stages: looks at a run, or ahead of one, and changes nothing."""
