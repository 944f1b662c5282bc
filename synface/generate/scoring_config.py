"""Who measures the images as they are made, and which of them are made again."""

from pydantic import Field, model_validator

from synface.settings import InputUri, Settings

FILTERS = ("least_similarity", "largest_similarity", "tolerance", "unique_below", "least_quality")


class Scoring(Settings):
    """A recognizer measures every image; one that a filter refuses is made again under another key.

    All thresholds are cosines on the scorer's scale, except the quality's. Nothing is refused where none is given.
    """

    weights: InputUri | None = Field(
        default=None,
        description="recognizer that measures similarity_inquiry: name, folder or URI; default: none does",
    )
    references: InputUri | None = Field(
        default=None, description="identities table with the inquiries' embeddings by it; default: the run's own"
    )
    least_similarity: float | None = Field(
        default=None, ge=-1, le=1, description="to the inquiry (consistency; DCFace: 0.3 by its recognizer)"
    )
    largest_similarity: float | None = Field(
        default=None, ge=-1, le=1, description="to the inquiry: beyond it an image adds nothing"
    )
    tolerance: float | None = Field(
        default=None,
        gt=0,
        le=2,
        description="to variation.similarity: an image further off on either side is made again",
    )
    unique_below: float | None = Field(
        default=None, ge=-1, le=1, description="to every earlier identity's inquiry (uniqueness; DCFace: 0.3)"
    )
    least_quality: float | None = Field(default=None, ge=0, description="norm of the feature; the scorer's own scale")
    attempts: int = Field(
        default=3, ge=1, le=100, description="tries of one image, each under its own key; then it is left out"
    )

    @property
    def filters(self) -> bool:
        """Whether an image can be refused."""
        return any(getattr(self, name) is not None for name in FILTERS)

    @model_validator(mode="after")
    def _whole(self) -> "Scoring":
        if self.weights is None and (self.filters or self.references is not None):
            raise ValueError("give scoring.weights, the recognizer that measures")
        if self.attempts != type(self).model_fields["attempts"].default and not self.filters:
            raise ValueError(f"attempts: nothing is tried again without a filter ({', '.join(FILTERS)})")
        low, high = self.least_similarity, self.largest_similarity
        if low is not None and high is not None and low > high:
            raise ValueError(f"least_similarity {low} is above largest_similarity {high}")
        return self
