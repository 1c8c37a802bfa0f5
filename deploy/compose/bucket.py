"""Makes a bucket if it is not there: `python bucket.py NAME`. The server may still be starting."""

import sys
import time

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

SECONDS = 60


def main(name: str) -> None:
    client = boto3.client("s3")
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.create_bucket(Bucket=name)
        except EndpointConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
            return
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1])
