"""Tiny files in the public formats of known data sets, as their owners pack them, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

Types = dict[str, pl.DataType]


@dataclass(frozen=True)
class Expected:
    """What a tiny log becomes.

    Attributes:
        rows: impressions of train, valid and test.
        clicks: how many of them have label 1.
        lengths: domain → part → the lengths of the histories, in order of the requests.
        broken: a file of the log, and a line that it cannot hold.
        message: what is said of this line.
    """

    rows: tuple[int, int, int]
    clicks: tuple[int, int, int]
    lengths: dict[str, tuple[list[int], list[int], list[int]]]
    broken: tuple[str, str] | None = None
    message: str = ""


def write_text(path: Path, *lines: str) -> None:
    """Lines of a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def mind(root: Path) -> Expected:
    """Two folders of tab-separated texts without headers; both tell of N2."""
    entities = '[{"Label": "a "quote", b", "WikidataId": "Q1"}]'
    news = {n: f'N{n}\tnews\tcrime\tA title, number {n}\tSays "so\tu\t{entities}\t[]' for n in range(1, 6)}
    train = [
        "1\tU1\t11/9/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0",
        "2\tU2\t11/11/2019 12:00:01 AM\t\tN4-0 N3-0 N2-1",
        "3\tU1\t11/14/2019 11:59:13 PM\tN1 N2\tN4-1 N2-0",
    ]
    write_text(root / "MINDsmall_train" / "behaviors.tsv", *train)
    write_text(root / "MINDsmall_train" / "news.tsv", *(news[n] for n in (1, 2, 3, 4)))
    dev = ["1\tU3\t11/15/2019 1:02:03 PM\tN5 N1 N2\tN5-0 N2-1 N1-0"]
    write_text(root / "MINDsmall_dev" / "behaviors.tsv", *dev)
    write_text(root / "MINDsmall_dev" / "news.tsv", *(news[n] for n in (2, 5)))
    write_text(root / "MINDlarge_test" / "behaviors.tsv", "1\tU3\t11/16/2019 1:02:03 PM\tN5\tN5 N2")
    return Expected(
        (5, 2, 3),
        (2, 1, 1),
        {"read": ([2, 0], [2], [3])},
        ("MINDsmall_dev/behaviors.tsv", "2\tU3\t11/15/2019 1:02:03 PM\tN5-0"),
        "behaviors.tsv: every record must have 5 fields, as its header has, but line 2 has 4",
    )


def kuairand(root: Path) -> Expected:
    """Logs, users and videos of the smallest edition; five rows of one user, one each in the later parts."""
    flags = "is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,duration_ms,"
    flags += "profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    head = f"user_id,video_id,date,hourmin,time_ms,{flags}"

    def row(video: int, day: int, hour: int, click: int) -> str:
        at = int((datetime(2022, 5, day, hour) - timedelta(hours=8) - datetime(1970, 1, 1)).total_seconds())
        rest = f"0,0,0,0,0,{click},{900 * click},17200,0,0,0,0,1"
        return f"7,{video},202205{day:02},{hour}00,{at}123,{click},{rest}"

    write_text(root / "log_standard_4_08_to_4_21_pure.csv", head, row(1, 1, 0, 1), row(2, 2, 23, 0))
    write_text(
        root / "log_standard_4_22_to_5_08_pure.csv", head, row(1, 6, 23, 1), row(2, 7, 0, 0), row(3, 8, 0, 1)
    )
    write_text(root / "log_random_4_22_to_5_08_pure.csv", head, row(3, 8, 1, 1))
    users = ["user_active_degree", "is_live_streamer", "is_video_author", "follow_user_num_range"]
    users += ["fans_user_num_range", "friend_user_num_range", "register_days_range", "onehot_feat3"]
    write_text(
        root / "user_features_pure.csv",
        ",".join(["user_id", *users]),
        '7,full_active,0,1,"(0,10]","[1,10)",0,730+,1153',
    )
    videos = (
        "author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height"
    )
    write_text(
        root / "video_features_basic_pure.csv",
        f"video_id,{videos},music_id,music_type,tag",
        *(f'{n},441,NORMAL,2020-07-08,ShortImport,1,17200.0,720,1280,989206467,4,"12,65"' for n in (1, 2, 3)),
    )
    return Expected(
        (3, 1, 1),
        (2, 0, 1),
        {"shown": ([0, 1, 2], [3], [4])},
        ("log_standard_4_22_to_5_08_pure.csv", "7,1,20220508,100"),
        "every record must have 19 fields, as its header has, but line 5 has 4",
    )


def ebnerd(root: Path) -> Expected:
    """Pages and histories of two weeks; two of the three events of user 1 are in both weeks' histories."""
    week = datetime(2023, 5, 18, 7)

    def page(user: int, at: datetime, shown: list[int], clicked: list[int]) -> dict[str, object]:
        known = {"user_id": user, "impression_time": at, "article_ids_inview": shown}
        rest = {"device_type": 1, "is_sso_user": True, "gender": None, "postcode": None, "age": None}
        late = {"read_time": 7.0, "scroll_percentage": None, "next_read_time": 3.0, "is_subscriber": False}
        return {"article_id": None, "article_ids_clicked": clicked, **known, **rest, **late}

    def history(**read: list[tuple[datetime, int]]) -> pl.DataFrame:
        rows = [
            {
                "user_id": int(user[1:]),
                "impression_time_fixed": [at for at, _ in events],
                "scroll_percentage_fixed": [None for _ in events],
                "article_id_fixed": [article for _, article in events],
                "read_time_fixed": [12.0 for _ in events],
            }
            for user, events in read.items()
        ]
        types: Types = {"scroll_percentage_fixed": pl.List(pl.Float32), "user_id": pl.UInt32()}
        return pl.DataFrame(rows, schema_overrides=types)

    hour, day = timedelta(hours=1), timedelta(days=1)
    early = [(week - 20 * day, 11), (week - hour, 12)]
    parts = {
        "train": (
            [page(1, week + hour, [11, 13], [13]), page(2, week + 6 * day + hour, [13, 12, 11], [11])],
            history(u1=early),
        ),
        "validation": (
            [page(1, week + 7 * day + hour, [12, 13], [12]), page(2, week + 8 * day, [14, 11], [11])],
            history(u1=[early[1], (week + 3 * day, 13)], u2=[(week - hour, 11), (week + day, 12)]),
        ),
    }
    types: Types = {"article_id": pl.Int32(), "scroll_percentage": pl.Float32(), "user_id": pl.UInt32()}
    types |= dict.fromkeys(["gender", "postcode", "age"], pl.Int8())
    for part, (pages, read) in parts.items():
        (root / part).mkdir(parents=True)
        pl.DataFrame(pages, schema_overrides=types).write_parquet(root / part / "behaviors.parquet")
        read.write_parquet(root / part / "history.parquet")
    articles = [11, 12, 13, 14]
    made = {"category": [1] * 4, "subcategory": [[1, 2], [], [3], [4]], "topics": [["sport"]] * 4}
    made |= {
        "article_type": ["article_default"] * 4,
        "sentiment_label": ["Neutral"] * 4,
        "premium": [False] * 4,
    }
    pl.DataFrame({"article_id": articles, **made}).write_parquet(root / "articles.parquet")
    return Expected((2, 3, 4), (1, 1, 2), {"read": ([2], [1], [3, 2])})


def taobaoad_x1(root: Path) -> Expected:
    """Comma-separated texts with histories between carets, of 100 rows for training and 2 for the test."""
    head = "clk,btag_his,cate_his,brand_his,userid,cms_segid,cms_group_id,final_gender_code,age_level,"
    head += "pvalue_level,shopping_level,occupation,new_user_class_level,adgroup_id,cate_id,campaign_id,"
    head += "customer,brand,price,pid,btag"

    def row(n: int, history: str) -> str:
        return f"{n % 2},{history},{n % 3},12,4,1,2,0,3,0,2,{n},{n % 4},7,8,9,12.5,430548_1007,1"

    short, long = "1,33,44", "1^2^1,33^35^36,44^45"
    write_text(root / "train.csv", head, *(row(n, short if n < 97 else ",,") for n in range(100)))
    write_text(root / "test.csv", head, row(0, long), row(1, short))
    none = [0, 0, 0]
    return Expected(
        (94, 6, 2),
        (47, 3, 1),
        {
            "categories": ([1] * 94, [1, 1, 1, *none], [3, 1]),
            "brands": ([1] * 94, [1, 1, 1, *none], [2, 1]),
            "acts": ([1] * 94, [1, 1, 1, *none], [3, 1]),
        },
        ("test.csv", "1,1,33,44,5"),
        "test.csv: every record must have 21 fields, as its header has, but line 4 has 5",
    )


def _vectors(path: Path, videos: list[int]) -> None:
    """The vectors of videos, as the page says they are converted."""
    value = pl.Series("value", [[0.5, float(n)] for n in videos], dtype=pl.Array(pl.Float64, 2))
    pl.DataFrame({"key": videos, "value": value}).write_parquet(path)


def kuaivideo_x1(root: Path) -> Expected:
    """Sorted by time; the oldest videos clicked and not clicked, between carets."""
    head = "timestamp,user_id,item_id,is_click,is_like,is_follow,pos_items,neg_items"
    rows = [f"0.{n:02},1,{n},{n % 2},0,0,{'^'.join(map(str, range(n % 3)))},{n}" for n in range(19)]
    write_text(root / "train.csv", head, *rows)
    write_text(root / "test.csv", head, "0.99,1,7,1,1,0,0^1^2^3,")
    _vectors(root / "item_visual_emb_dim64.parquet", list(range(19)))
    (root / "item_visual_emb_dim64.h5").write_bytes(b"")
    sizes = [n % 3 for n in range(19)]
    return Expected(
        (18, 1, 1),
        (9, 0, 1),
        {"clicked": (sizes[:18], sizes[18:], [4]), "skipped": ([1] * 18, [1], [0])},
        ("train.csv", "0.2,1,4,1,0,0,1^2"),
        "train.csv: every record must have 8 fields, as its header has, but line 21 has 7",
    )


def microvideo_x1(root: Path) -> Expected:
    """Histories of videos and of their categories; the test has other videos."""
    head = "is_click,user_id,item_id,cate_id,clicked_items,clicked_categories,timestamp"
    rows = [
        f"{n % 2},1,{n},{n % 4},{'^'.join('012'[: n % 3])},{'^'.join('012'[: n % 3])},{n}" for n in range(19)
    ]
    write_text(root / "train.csv", head, *rows)
    write_text(root / "test.csv", head, "1,1,99,3,0^1^2,0^1^2,30")
    _vectors(root / "item_image_emb_dim64.parquet", [*range(19), 99])
    sizes = [n % 3 for n in range(19)]
    return Expected(
        (18, 1, 1),
        (9, 0, 1),
        dict.fromkeys(("clicked", "categories"), (sizes[:18], sizes[18:], [3])),
        ("test.csv", "1,1,99,3,0^1^2,0^1^2"),
        "test.csv: every record must have 7 fields, as its header has, but line 3 has 6",
    )


def amazonelectronics_x1(root: Path) -> Expected:
    """Shuffled rows of two users, a positive and a negative for each review but the first one."""
    head = "label,user_id,item_id,cate_id,item_history,cate_history"
    train = [
        "1,7,3,1,1^2,0^0",
        "0,7,5,2,1,0",
        "0,7,6,2,1^2,0^0",
        "1,7,2,0,1,0",
        "1,20,1,0,3,1",
        "0,20,4,1,3,1",
    ]
    test = ["1,7,4,1,1^2^3,0^0^1", "0,7,1,0,1^2^3,0^0^1", "1,20,2,0,3^1,1^0", "0,20,5,2,3^1,1^0"]
    write_text(root / "train.csv", head, *train)
    write_text(root / "test.csv", head, *test)
    return Expected(
        (4, 2, 4),
        (2, 1, 2),
        {"reviewed": ([1, 1, 2, 2], [1, 1], [2, 2, 3, 3])},
        ("train.csv", "1,7,3,1^2,0^0"),
        "train.csv: every record must have 6 fields, as its header has, but line 8 has 5",
    )


def _without_histories(root: Path, columns: list[str], values: str) -> Expected:
    """Three parts of a log of fields alone."""
    head = ",".join(["label", *columns])
    for part, labels in (("train", "0101"), ("valid", "10"), ("test", "011")):
        write_text(root / f"{part}.csv", head, *(f"{label},{values}" for label in labels))
    return Expected(
        (4, 2, 3),
        (2, 1, 2),
        {},
        ("valid.csv", f"1,{values},9"),
        f"valid.csv: every record must have {len(columns) + 1} fields, as its header has, but line 4 has "
        f"{len(columns) + 2}",
    )


def criteo_x1(root: Path) -> Expected:
    """13 numbers and 26 codes."""
    columns = [f"I{n}" for n in range(1, 14)] + [f"C{n}" for n in range(1, 27)]
    return _without_histories(root, columns, ",".join(["0.25"] * 13 + [str(n) for n in range(26)]))


def avazu_x1(root: Path) -> Expected:
    """22 codes."""
    columns = [f"feat_{n}" for n in range(1, 23)]
    return _without_histories(root, columns, ",".join(str(n) for n in range(22)))


PUBLIC: dict[str, Callable[[Path], Expected]] = {
    "amazonelectronics-x1": amazonelectronics_x1,
    "avazu-x1": avazu_x1,
    "criteo-x1": criteo_x1,
    "ebnerd": ebnerd,
    "kuairand": kuairand,
    "kuaivideo-x1": kuaivideo_x1,
    "microvideo-x1": microvideo_x1,
    "mind": mind,
    "taobaoad-x1": taobaoad_x1,
}
