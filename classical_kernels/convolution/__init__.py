"""The short causal convolution of recurrent blocks, one filter a channel, with the inputs it carries on."""
