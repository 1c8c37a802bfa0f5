"""Features of data sets through the whole platform equal an oracle over the raw files; `benchmarks.features.oracle`."""

import shutil

from benchmarks.features.oracle import DAY, movielens, retail, retail_oracle

HEAD = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
ROWS = """1,A,LAMP,2,2011-01-04 09:00:00,2.5,17.0,France
1,B,MUG,1,2011-01-04 09:00:00,4.95,17.0,France
2,A,LAMP,3,2011-01-04 16:59:00,2.25,,France
C3,A,LAMP,-1,2011-01-05 10:00:00,2.5,17.0,France
4,B,damaged,-7,2011-01-05 11:00:00,0.0,,France
5,A,LAMP,1,2011-01-20 08:00:00,9.99,18.0,Spain
"""


def test_features_of_a_small_shop_equal_the_oracle(tmp_path):
    data = tmp_path / "shop"
    (data / "by-day").mkdir(parents=True)
    for day in ("2011-01-04", "2011-01-05", "2011-01-20"):
        rows = [row for row in ROWS.splitlines() if day in row]
        (data / "by-day" / f"{day}.csv").write_text(HEAD + "\n".join(rows) + "\n")
    items, (_, last), oracle = retail_oracle(data)
    assert items == ["A", "B"]
    at_end = oracle("A", last + DAY)
    assert (at_end["item_engagement__purchases_30d"], at_end["item_engagement__returns_30d"]) == (3, 1)
    assert at_end["item_engagement__revenue_30d"] == 21.74
    assert (at_end["item_attributes__price"], at_end["item_attributes__price_median_30d"]) == (9.99, 2.25)
    compared, differ = retail(data, tmp_path, 200)
    assert (compared, differ) == (200 * len(at_end), [])


def test_features_of_three_days_of_a_real_shop_equal_the_oracle(public_data, tmp_path):
    data = tmp_path / "shop"
    (data / "by-day").mkdir(parents=True)
    for path in sorted((public_data / "online-retail" / "by-day").glob("*.csv.gz"))[:3]:
        shutil.copy(path, data / "by-day")
    compared, differ = retail(data, tmp_path, 500)
    assert compared and differ == []


def test_features_at_ratings_equal_the_oracle(tmp_path):
    data = tmp_path / "ratings"
    data.mkdir()
    rows = [f"{n % 3},{n % 5},{1 + n % 9 / 2},{1_000_000_000 + n * 1777}" for n in range(15)]
    (data / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(rows) + "\n")
    (data / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,1,funny,1000000100\n")
    compared, differ = movielens(data, tmp_path)
    assert (compared, differ) == (15 * 7, [])
