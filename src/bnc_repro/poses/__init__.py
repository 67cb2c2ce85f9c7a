"""Keypoints: skeletons, people, crops, heatmaps, their measures, networks, the task."""
