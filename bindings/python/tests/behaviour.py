"""What programs in Python rely on. Run by the tests of the C ABI, with fake GPUs."""

import asyncio
import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import unittest

import chronos
import chronos.aio
import chronos.multiprocessing as shared


class Behaviour(unittest.TestCase):
    def setUp(self):
        self.partitioner = chronos.Partitioner()

    def tearDown(self):
        self.assertEqual(self.partitioner.list(), [], "the test left a partition")
        self.partitioner.close()

    def test_names(self):
        self.assertIn(self.partitioner.get_execution_mode(), {"concurrent", "time_sliced", "stub"})
        self.assertEqual(self.partitioner.get_backend_name(), "fake")
        support = chronos.check_concurrent_support()
        keys = {"nvidia_mps", "rocm", "opencl", "concurrent_possible", "recommended", "stub_mode"}
        self.assertLessEqual(keys, set(support))
        self.assertFalse(chronos.is_stub_mode() or support["stub_mode"])
        self.assertIs(chronos.Partitioner.check_concurrent_support(), False)

    def test_create_is_listed_and_released(self):
        before = self.partitioner.get_available(1)
        with self.partitioner.create(device=1, memory=0.5, duration=3600) as partition:
            (info,) = self.partitioner.list()
            self.assertEqual(info.partition_id, partition.partition_id)
            self.assertEqual((info.device_index, info.memory_fraction), (1, 0.5))
            self.assertEqual((info.process_id, info.active), (os.getpid(), True))
            self.assertEqual(pickle.loads(pickle.dumps(info)), info)
            self.assertEqual((partition.device, partition.memory_fraction), (1, 0.5))
            first = partition.time_remaining
            self.assertLessEqual(partition.time_remaining, first)
            self.assertAlmostEqual(self.partitioner.get_available(1), before - 50, delta=1)
            partition.extend(60)
            self.assertEqual(partition.duration, 3660)
            self.assertEqual(partition.environment["CUDA_VISIBLE_DEVICES"], "1")
        self.assertEqual(self.partitioner.get_available(1), before)
        partition.release()
        partition.release()
        with self.assertRaises(chronos.ChronosError):
            self.partitioner.release(partition.partition_id)

    def test_bad_input_is_refused(self):
        bad = [(-1, 0.5, 60), (999, 0.5, 60), (0, 0, 60), (0, -0.1, 60), (0, 1.5, 60)]
        bad += [(0, float("nan"), 60), (0, 1e30, 60), (0, 0.5, 0), (0, 0.5, -1)]
        for device, memory, duration in bad:
            with self.assertRaises(chronos.ChronosError, msg=(device, memory, duration)):
                self.partitioner.create(device, memory, duration)
        with self.assertRaises(ValueError):
            self.partitioner.request(memory=1.5)
        with self.assertRaises(TypeError):
            self.partitioner.suggest(memroy=0.5)

    def test_leaving_after_the_deadline_is_no_error(self):
        with self.partitioner.create(0, 0.5, 1) as partition:
            while partition.time_remaining > 0:
                pass
            while self.partitioner.list():
                pass

    def test_a_warning_and_its_signal(self):
        with self.partitioner.request(memory=0.1, warn=300, warn_signal="int") as partition:
            lease = self.partitioner._find(partition.partition_id)
            self.assertEqual((lease["warnSeconds"], lease["warnSignal"]), (300, "int"))
        with self.assertRaises(chronos.ChronosError) as refused:
            self.partitioner.request(memory=0.1, warn_signal="hup")
        self.assertEqual(refused.exception.code, -2)

    def test_gangs_and_the_queue(self):
        with self.partitioner.request(gpus=[0, 1], memory=0.8, duration=60) as gang:
            self.assertEqual(gang.devices, [0, 1])
            with self.assertRaises(chronos.ChronosError) as refused:
                self.partitioner.request(count=2, memory=0.5, duration=60)
            self.assertEqual(refused.exception.code, -73)
            later = self.partitioner.suggest(count=2, memory=0.5, duration=60)
            self.assertGreater(later["startsInSeconds"], 30)
            with self.assertRaises(chronos.ChronosError) as waited:
                self.partitioner.request(count=2, memory=0.5, duration=60, wait=0.1)
            self.assertEqual(waited.exception.code, -75)

    def test_workers_share_and_never_release(self):
        with shared.create_shared_partition(device=0, memory=0.5, duration=60) as partition:
            self.assertEqual(pickle.loads(pickle.dumps(partition.get_info())), partition.get_info())
            for method in ["fork", "spawn"]:
                with multiprocessing.get_context(method).Pool(2) as pool:
                    seen = pool.map(use, [partition] * 4)
                self.assertEqual(set(seen), {(partition.partition_id, 0, 0.5)})
            self.assertEqual(len(self.partitioner.list()), 1)

    def test_processes_at_once(self):
        with multiprocessing.get_context("fork").Pool(3) as pool:
            got = pool.map(take, range(3))
        self.assertEqual(len(set(got)), 3)
        for partition_id in got:
            # They ended with their processes, or are about to.
            try:
                self.partitioner.release(partition_id)
            except chronos.ChronosError:
                pass

    def test_warning(self):
        async def body():
            async with chronos.aio.request(memory=0.5, duration=60) as partition:
                # Due already, and due in 20 s.
                await asyncio.wait_for(chronos.aio.warning(partition, seconds=60), timeout=10)
                late = asyncio.create_task(chronos.aio.warning(partition, seconds=40))
                await asyncio.sleep(0)
                late.cancel()
                return partition.time_remaining

        self.assertGreater(asyncio.run(body()), 40)
        with self.assertRaises(chronos.ChronosError) as gone:
            self.partitioner.warning_fd("partition_none", 1)
        self.assertEqual(gone.exception.code, -65)

    @unittest.skipUnless(importlib.util.find_spec("IPython"), "IPython is not installed")
    def test_jupyter_magic(self):
        from IPython.testing.globalipapp import start_ipython

        shell = start_ipython()
        shell.run_line_magic("load_ext", "chronos")
        held = shell.run_line_magic("chronos", "1 0.5 60")
        self.assertEqual(os.environ["CUDA_VISIBLE_DEVICES"], "1")
        self.assertEqual([p.partition_id for p in self.partitioner.list()], [held.partition_id])
        shell.run_line_magic("chronos", "release")
        self.assertEqual(self.partitioner.list(), [])
        self.assertNotIn("CHRONOS_LEASE", os.environ, "it is set while there is a partition")
        with self.assertRaisesRegex(ValueError, "DEVICE FRACTION SECONDS"):
            shell.run_line_magic("chronos", "0 half")
        shell.user_ns["partitioner"] = self.partitioner
        shell.run_cell_magic("chronos", "0 0.25 60", "seen = len(partitioner.list())")
        self.assertEqual(shell.user_ns["seen"], 1)

    def test_asyncio(self):
        async def body():
            async with chronos.aio.request(memory=0.5, duration=60) as partition:
                return partition.devices

        self.assertEqual(len(asyncio.run(body())), 1)

    def test_who_is_cancelled_in_the_queue_keeps_nothing(self):
        async def body(wait):
            asked = chronos.aio.request(gpus=[0], memory=0.9, duration=60, wait=wait)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(asked.__aenter__(), timeout=0.2)

        with self.partitioner.create(device=0, memory=0.9, duration=60):
            asyncio.run(body(wait=30))
        # What the thread was granted when the place came free it gives back.
        while self.partitioner.list():
            pass
        with self.partitioner.create(device=0, memory=0.9, duration=60):
            pass

    def test_a_call_that_waits_holds_up_no_other(self):
        ended = threading.Event()

        def wait():
            with self.partitioner.request(gpus=[0], memory=0.9, duration=60, wait=60):
                ended.set()

        with self.partitioner.create(device=0, memory=0.9, duration=60):
            waiter = threading.Thread(target=wait)
            waiter.start()
            asked = {"gpus": [0], "memory": 0.9, "duration": 60}
            # It is behind the one that waits as soon as that one does.
            while self.partitioner.suggest(**asked)["startsInSeconds"] < 70:
                self.assertFalse(ended.is_set())
            self.assertEqual(len(self.partitioner.list()), 1)
        waiter.join()
        self.assertTrue(ended.is_set())

    def test_import_never_fails(self):
        script = (
            "import chronos; assert chronos.is_stub_mode()\n"
            "assert 'reason' in chronos.check_concurrent_support()\n"
            "try: chronos.Partitioner()\n"
            "except chronos.ChronosStubError as e: assert 'CHRONOS_LIBRARY' in str(e)\n"
            "else: raise SystemExit('no error')\n"
        )
        environment = {**os.environ, "CHRONOS_LIBRARY": "/nonexistent/libchronos.so"}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def use(partition):
    partition.release()
    return (partition.partition_id, partition.device_index, partition.memory_fraction)


def take(_):
    return chronos.Partitioner().create_raw(0, 0.15, 60)


if __name__ == "__main__":
    unittest.main()
