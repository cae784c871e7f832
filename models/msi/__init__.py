"""MSI and MSI-DIS: separation, transcription and synthesis of whatever a recorded query tells them to."""
