"""The dialect of Segment's HTTP tracking API -> events."""
