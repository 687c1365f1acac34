"""What several processes have counted."""

import json

from prometheus_client.mmap_dict import MmapedDict

from longshore.serving.metrics import SharedMetrics


def test_a_worker_that_was_killed_as_it_began_to_count_takes_no_metrics_away(tmp_path):
    counted = MmapedDict(str(tmp_path / "counter_1.db"))
    counted.write_value(json.dumps(["requests_total", "requests_total", {}, "Requests."]), 3.0, 0.0)
    counted.close()
    (tmp_path / "counter_2.db").touch()
    (metric,) = SharedMetrics(path=str(tmp_path)).collect()
    assert [sample.value for sample in metric.samples] == [3.0]
