"""Classification: pictures, data sets, networks, the task."""
