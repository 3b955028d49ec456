"""The upload half of the xet protocol: unpacks what clients send into ordinary blobs."""
