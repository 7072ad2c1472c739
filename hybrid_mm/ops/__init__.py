"""Operators: functions of tensors in plain torch, each with one file per algorithm."""
