"""The paper in miniature: an invented medicine, a small base that we trained, its exams and textbook."""
