"""Simulated shifts of images: another light, lens, sensor, weather or camera position.

`table` names them and needs no torch; `apply.shift` makes one of them of a batch of images.
"""
