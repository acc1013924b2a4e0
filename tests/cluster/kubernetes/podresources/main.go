// Command podresources serves the kubelet's pod-resources API on a unix socket.
//
// The server is the kubelet's own (k8s.io/kubernetes/pkg/kubelet/apis/podresources); what its
// device manager would know comes from a file, which is read again for every request:
//
//	[{"namespace": "team", "name": "train-0", "containers": [
//	    {"name": "main", "devices": [{"resource": "nvidia.com/gpu", "ids": ["GPU-1::0"]}]}]}]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/apis/podresources"
)

type device struct {
	Resource string   `json:"resource"`
	IDs      []string `json:"ids"`
	Numa     []int64  `json:"numa"`
}

type container struct {
	Name    string   `json:"name"`
	Devices []device `json:"devices"`
}

type pod struct {
	Namespace  string      `json:"namespace"`
	Name       string      `json:"name"`
	Containers []container `json:"containers"`
}

// file is what the kubelet's managers would know.
type file struct {
	path string
	// What was read when the pods were last listed, by pod and container.
	devices sync.Map
}

func (f *file) pods() []pod {
	text, err := os.ReadFile(f.path)
	if err != nil {
		panic(err)
	}
	var pods []pod
	if err := json.Unmarshal(text, &pods); err != nil {
		panic(err)
	}
	for _, one := range pods {
		for _, c := range one.Containers {
			f.devices.Store([2]string{one.uid(), c.Name}, devices(c.Devices))
		}
	}
	return pods
}

func (p pod) uid() string { return p.Namespace + "/" + p.Name }

func (f *file) GetPods() []*corev1.Pod {
	var all []*corev1.Pod
	for _, one := range f.pods() {
		made := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: one.Namespace, Name: one.Name, UID: types.UID(one.uid()),
		}}
		for _, c := range one.Containers {
			made.Spec.Containers = append(made.Spec.Containers, corev1.Container{Name: c.Name})
		}
		all = append(all, made)
	}
	return all
}

func (f *file) GetActivePods() []*corev1.Pod { return f.GetPods() }

func (f *file) GetPodByName(namespace, name string) (*corev1.Pod, bool) {
	for _, one := range f.GetPods() {
		if one.Namespace == namespace && one.Name == name {
			return one, true
		}
	}
	return nil, false
}

func devices(from []device) []*podresourcesv1.ContainerDevices {
	var all []*podresourcesv1.ContainerDevices
	for _, d := range from {
		made := &podresourcesv1.ContainerDevices{ResourceName: d.Resource, DeviceIds: d.IDs}
		for _, node := range d.Numa {
			if made.Topology == nil {
				made.Topology = &podresourcesv1.TopologyInfo{}
			}
			made.Topology.Nodes = append(made.Topology.Nodes, &podresourcesv1.NUMANode{ID: node})
		}
		all = append(all, made)
	}
	return all
}

func (f *file) UpdateAllocatedDevices() {}

func (f *file) GetDevices(podUID, containerName string) []*podresourcesv1.ContainerDevices {
	known, _ := f.devices.Load([2]string{podUID, containerName})
	held, _ := known.([]*podresourcesv1.ContainerDevices)
	return held
}

func (f *file) GetAllocatableDevices() []*podresourcesv1.ContainerDevices {
	var all []*podresourcesv1.ContainerDevices
	for _, one := range f.pods() {
		for _, c := range one.Containers {
			all = append(all, devices(c.Devices)...)
		}
	}
	return all
}

func (f *file) GetCPUs(string, string) []int64                             { return []int64{0, 1} }
func (f *file) GetAllocatableCPUs() []int64                                { return []int64{0, 1, 2, 3} }
func (f *file) GetMemory(string, string) []*podresourcesv1.ContainerMemory { return nil }
func (f *file) GetAllocatableMemory() []*podresourcesv1.ContainerMemory    { return nil }
func (f *file) GetDynamicResources(*corev1.Pod, *corev1.Container) []*podresourcesv1.DynamicResource {
	return nil
}

func main() {
	socket := flag.String("socket", "", "where to listen")
	path := flag.String("pods", "", "the file with pods and their devices")
	flag.Parse()
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	known := &file{path: *path}
	server := grpc.NewServer()
	podresourcesv1.RegisterPodResourcesListerServer(server, podresources.NewV1PodResourcesServer(
		context.Background(),
		podresources.PodResourcesProviders{
			Pods: known, Devices: known, Cpus: known, Memory: known, DynamicResources: known,
		},
	))
	if err := server.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
