"""Export to ONNX: graphs of a model, their files, and the table of what can be exported."""
