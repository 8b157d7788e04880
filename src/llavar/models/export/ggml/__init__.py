"""What llama.cpp takes: vocabulary, chat template, tensors and their names, all in GGUF files.

Formats follow llama.cpp's own readers (``src/llama-vocab.cpp``, ``tools/mtmd/clip.cpp``).
"""
