"""Songs with true stems: readers, a cache on disk, and the remixing that training sees."""
