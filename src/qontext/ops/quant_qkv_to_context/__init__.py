"""QuantQKVToContext: attention whose products are of bytes."""
