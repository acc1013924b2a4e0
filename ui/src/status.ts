/** What `/api/v1/status` answers. Shares are 0 to 1, money is a decimal as text, unknown is null. */
export interface Status {
  at: string | null;
  generation: number;
  acting: boolean;
  totals: Totals;
  findings: Finding[];
  unknown: Unknown[];
  pods: Pod[];
  devices: Device[];
}

export interface Amount {
  amount: string;
  currency: string;
}

export interface Totals {
  gpuNodes: number;
  gpus: number;
  gpusMeasured: number;
  gpusRequested: number;
  costPerHour: Amount | null;
  nodesUnpriced: number;
  savingPerHour: Amount | null;
  findingsUnpriced: number;
}

export interface Finding {
  kind: string;
  namespace: string;
  pod: string;
  uid: string;
  node: string;
  owner: string | null;
  devices: string[];
  model: string | null;
  /** Null for a pod that never ran. */
  usage: Usage | null;
  /** Why it does not run or end. */
  stuck: string | null;
  score: { total: number; compute: number; memory: number | null };
  reclaimable: number | null;
  savingPerHour: Amount | null;
  since: string;
}

export interface Usage {
  observedSecs: number;
  samples: number;
  activityMean: number;
  activityP95: number;
  activityMax: number;
  activitySource: string;
  fbMean: number | null;
  fbP95: number | null;
  fbMaxBytes: number | null;
}

export interface Unknown {
  node: string;
  gpus: number;
  namespace: string | null;
  pod: string | null;
  reason: string;
  message: string;
}

export interface Pod {
  namespace: string;
  pod: string;
  uid: string;
  node: string | null;
  gpus: number;
  devices: string[];
  model: string | null;
  usage: Usage | null;
}

export interface Device {
  node: string;
  device: string;
  model: string | null;
  holders: string[];
  activity: number | null;
  activitySource: string | null;
  fb: number | null;
  watts: number | null;
  celsius: number | null;
  at: string;
}
