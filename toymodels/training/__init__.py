"""Training and evaluation of one model, as pure functions of a key.

train       `fit` for any loss and sampler, and `train` for a model and a task
recipe      the usual training: Adam with a learning rate that falls along a cosine
schedules   other learning rates over the steps of a training
descent     the loop of all training
"""
