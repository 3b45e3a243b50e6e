"""From the ops of a region to packed weights, block transfers and the NPU's instruction words. No torch here."""
