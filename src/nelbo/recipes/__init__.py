"""Recipes: functions that return a Recipe; the docstring is a promise that a record keeps."""
