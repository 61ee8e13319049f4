"""One flat script per question, and the data that the questions are put to."""
