"""The tiny CoLLaVO, made from nothing on a CPU."""
