"""What runs of tests share that must be known before torch is imported."""

# keys of a recipe: two binary layers on small images, ten steps an epoch on the images of the fixture `data`
TINY = {"width": 4, "blocks": [1, 1], "stem": "half", "batch_size": 32, "learning_rate": 0.02}
